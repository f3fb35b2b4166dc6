"""The controller: a spec becomes values, values become a Helm release, a release becomes running pods.

Nothing here may import torch, a simulator or `workers`; what passes between jobctl and the workers lies in the chart.
"""
