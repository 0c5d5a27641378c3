"""What would a strategy have earned?"""
