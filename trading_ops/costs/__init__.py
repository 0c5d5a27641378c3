"""What do the APIs cost?"""
