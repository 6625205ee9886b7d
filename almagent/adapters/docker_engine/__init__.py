"""The parts of the Docker engine adapter; the one that others use is `almagent.adapters.engine`."""
