"""What a project supplies: who may see progress, and what more there is."""

asked = []


def is_ann(request, result):
    asked.append((request, result))
    return request.user.get_username() == "ann"


async def is_ann_too(request, result):
    user = await request.auser()
    return user.get_username() == "ann"


def breaks(request, result):
    raise RuntimeError("The rule is broken.")


def value(request, result):
    """Opt in to the value, and say more of a failure."""
    if not result.is_finished:
        return None
    if result.status == "FAILED":
        return {"text": "The file is empty.", "state": "FINE", "failed": False}
    return {"result": result.return_value}
