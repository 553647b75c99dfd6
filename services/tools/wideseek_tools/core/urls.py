"""Addresses as keys."""


def canonical(url: str) -> str:
    """The form under which a page is stored and looked up.

    Scheme and host lose their case, the fragment goes, and so does a slash at the end of an address without a query.
    Never fails: what is no URL is its own key.
    """
    bare = url.partition("#")[0].strip()
    scheme, colon, rest = bare.partition("://")
    if colon:
        host, slash, path = rest.partition("/")
        bare = f"{scheme.lower()}://{host.lower()}{slash}{path}"
    return bare if "?" in bare else bare.removesuffix("/")
