from tests.scenario.conftest import agent, api, port, shared_registry

__all__ = ["agent", "api", "port", "shared_registry"]
