sum(value)
