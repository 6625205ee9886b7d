"""The whole loop on one machine, with no cloud and no network: what `almagent demo` shows.

`story` is what happens, `stage` is what it happens on: control plane, registry, repository and metadata
service in this process, the agent as a child process, the containers on the machine's Docker engine.
"""
