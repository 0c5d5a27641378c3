"""Which parameters would have earned most, and is there proof on days the search did not see?"""
