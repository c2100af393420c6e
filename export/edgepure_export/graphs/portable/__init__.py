"""Operators that engines compute differently, written in others on which all agree."""
