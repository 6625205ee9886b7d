from tests.scenario.conftest import agent, api, image, port, shared_registry

__all__ = ["agent", "api", "image", "port", "shared_registry"]
