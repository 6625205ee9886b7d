"""What is used of the docker SDK, loaded without what is never used of it.

`requests`, on which it stands, loads a library that guesses the encoding of texts: 3 MB of an idle agent. It
does without one as well, and warns; the engine says what it sends.
"""

import sys
import warnings

GUESSING = "charset_normalizer"

warnings.filterwarnings("ignore", "Unable to find acceptable character detection")
halted = GUESSING not in sys.modules
if halted:
    sys.modules[GUESSING] = None  # type: ignore[assignment]  # importing it fails, as if it were not there

from docker import APIClient  # noqa: E402  only now
from docker.errors import APIError, DockerException, NotFound  # noqa: E402  likewise
from docker.transport import unixconn  # noqa: E402  likewise
from docker.utils import decode_json_header, kwargs_from_env  # noqa: E402  likewise
from requests.exceptions import Timeout  # noqa: E402  likewise

if halted:
    del sys.modules[GUESSING]

__all__ = [
    "APIClient",
    "APIError",
    "DockerException",
    "NotFound",
    "Timeout",
    "decode_json_header",
    "kwargs_from_env",
    "unixconn",
]
