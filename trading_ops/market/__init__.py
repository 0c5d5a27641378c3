"""Where do the hourly candles come from, and are they sound?"""
