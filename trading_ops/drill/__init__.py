"""Does the guard stop a strategy and tell people, tried out from end to end?"""
