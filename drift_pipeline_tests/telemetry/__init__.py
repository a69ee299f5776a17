"""Histories are read or refused, the lake keeps them, and the synthetic ones drift as they say."""
