"""Python functions as tokens: what may be called, how a call is made, and the processes in which calls are made."""
