"""The self-hosted ALM API: the whole of the v3 reference from one SQLite file.

A small house of its own. It shares wire names with the agent and no code, and it does what the
reference says, not what this agent happens to need.

    server.py      starts and stops it, in a process of its own or inside another one
    web/           HTTP: one table of routes, one module a chapter of the reference
    store/         SQLite: one module a kind of thing that is remembered
    template.py scope.py diff.py    pure: templates, role scopes, the difference of two templates

Beside the reference it answers what an operator cannot do without: `POST GET /v3/user` and
`DELETE /v3/user/{username}` (accounts that roles can be attached to) and
`GET /v3/alm/stack/{stack_id}/status` (the calls the agents made).
"""
