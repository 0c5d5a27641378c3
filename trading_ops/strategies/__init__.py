"""When does each strategy buy, and when does it sell?"""
