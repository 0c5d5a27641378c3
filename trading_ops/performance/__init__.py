"""How well do the strategies trade?"""
