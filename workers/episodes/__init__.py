"""Episodes on the shared volume: schema, the one way to write them, the ledger that says which exist, readers.

Nothing here knows a simulator, a model or a job's kind.
"""
