"""Is everything up that the bot and this platform live on?"""
