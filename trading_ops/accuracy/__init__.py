"""How right are the deployed models?"""
