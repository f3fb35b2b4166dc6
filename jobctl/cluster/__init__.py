"""The Kubernetes backend: Helm installs the release, the API server answers everything else.

The only importer of `kubernetes`, and only inside functions: `jobctl --help` and `jobctl render` never load it. Objects
stay what the API server sends, dictionaries in its own spelling, so that status.py reads both backends alike.
"""
