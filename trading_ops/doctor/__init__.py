"""Is everything in order, and if not, what has to be done?"""
