"""The containers' program: `python -m workers {collect,train,eval} --config FILE`.

Nothing here may import `jobctl`: what a worker knows, it knows from its config file, its environment and the volume.
"""

__version__ = "0.1.0"
