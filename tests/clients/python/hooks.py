"""What schemathesis must do as clients do."""

import schemathesis


@schemathesis.hook
def before_call(context, case, kwargs):
    """Name one date, in Accept and for the body: without it nothing of the Atlas part is answered."""
    media = case.media_type or ""
    dated = media.startswith("application/vnd.atlas.")
    case.headers["Accept"] = media if dated else "application/vnd.atlas.2025-03-12+json"
