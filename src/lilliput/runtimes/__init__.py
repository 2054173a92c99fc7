"""Runtimes: ways to run a file. One module a runtime; importing one registers it.

The library behind a runtime is imported when a file is loaded, never before, and where it is a
foreign one (it may crash, pin threads or keep global state) it lives in a child process.
"""
