"""Who notices that nothing ticks any more?"""
