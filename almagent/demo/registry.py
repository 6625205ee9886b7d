"""A registry to pull one image from: the reading half of the OCI distribution specification.

Docker takes a registry on 127.0.0.0/8 without TLS.
"""

from __future__ import annotations

from aiohttp import web

from almagent.demo.image import MANIFEST_TYPE, Image, digest

NAME = "almagent-demo:1"


def application(image: Image) -> web.Application:
    """Serves the image as `NAME`."""
    repository, _, tag = NAME.partition(":")
    manifests = {tag: image.manifest, digest(image.manifest): image.manifest}

    async def version(_request: web.Request) -> web.Response:
        return web.json_response({})

    async def manifest(request: web.Request) -> web.Response:
        return _answer(manifests.get(request.match_info["reference"]), MANIFEST_TYPE)

    async def blob(request: web.Request) -> web.Response:
        return _answer(image.blobs.get(request.match_info["digest"]), "application/octet-stream")

    app = web.Application()
    app.router.add_get("/v2/", version)
    app.router.add_get(f"/v2/{repository}/manifests/{{reference}}", manifest)
    app.router.add_get(f"/v2/{repository}/blobs/{{digest}}", blob)
    return app


def _answer(content: bytes | None, content_type: str) -> web.Response:
    if content is None:
        raise web.HTTPNotFound
    headers = {"Docker-Content-Digest": digest(content), "Content-Type": content_type}
    return web.Response(body=content, headers=headers)
