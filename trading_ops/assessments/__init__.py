"""Should the models be retrained?"""
