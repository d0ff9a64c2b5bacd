"""Where the token is.  It goes to the library and into no message."""

# SPDX-License-Identifier: Apache-2.0

import os

from huggingface_hub import constants, get_token

from lorafold_hub.failures import Failure
from lorafold_hub.lines import Channel

FILE_BYTES_MAX = 4096  # tokens have some 40 letters, signed ones some hundred


def read_token_file(path: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Failure("token_file", f"token file '{path}': {os.strerror(error.errno or 0)}") from None
    token = content.strip().decode("latin-1")
    if len(content) > FILE_BYTES_MAX or not token or not all("!" <= letter <= "~" for letter in token):
        raise Failure("token_file", f"token file '{path}' does not hold one token")
    return token


def find_token(path: str | None, channel: Channel) -> tuple[str | None, str | None]:
    """The token (None: none) and where it came from, in words.  It is hidden before it is used."""
    if path is not None:
        token = read_token_file(path)
        channel.hide(token)
        return token, f"'{path}'"
    for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        channel.hide(os.environ.get(variable, "").strip())
    token = get_token()
    channel.hide(token)
    if token is None or constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        return None, None
    from_variable = token in (os.environ.get(name, "").strip() for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"))
    return token, "HF_TOKEN" if from_variable else f"'{constants.HF_TOKEN_PATH}'"
