"""What is the account worth?"""
