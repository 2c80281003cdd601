#!/usr/bin/env python3
"""Pushes, runs and reads ten tokens with nothing but Python: quickstart.py [POOL_URL]."""

import sys

import tokenpool

with tokenpool.connect(sys.argv[1] if len(sys.argv) > 1 else "sqlite:///quickstart.db", create=True) as pool:
    # A string is a shell command; fields given here go to every token.
    ids = pool.push([f"echo $(( {n} * {n} ))" for n in range(10)], batch="squares")

    # Here, or `tokenpool work` on as many other machines as you like.
    tokenpool.Worker(pool, tokenpool.WorkerOptions(slots=4, quit=True, batches=("squares",))).run()

    for token_id in ids:
        print(token_id, pool.get(token_id).state, pool.logs(token_id).out.decode().strip())
    print(pool.counts("squares"))
