"""What happened, what was decided on it, and can either have been changed since?"""
