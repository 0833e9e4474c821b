"""The two Content-Security-Policies under which all must work, as this Django is told of them."""

import django

STRICT = {
    "default-src": ["'none'"],
    "script-src": ["'self'"],
    "style-src": ["'self'"],
    "img-src": ["'self'"],
    "connect-src": ["'self'"],
    "form-action": ["'self'"],
    "frame-ancestors": ["'none'"],
    "base-uri": ["'self'"],
}

if django.VERSION >= (6, 0):
    from django.utils.csp import CSP

    MIDDLEWARE = "django.middleware.csp.ContentSecurityPolicyMiddleware"
    CONTEXT_PROCESSOR = "django.template.context_processors.csp"
    NONCE_SOURCE = CSP.NONCE
else:
    try:
        from csp.constants import NONCE as NONCE_SOURCE
    except ImportError:
        NONCE_SOURCE = None
    MIDDLEWARE = "csp.middleware.CSPMiddleware"
    CONTEXT_PROCESSOR = "csp.context_processors.nonce"

#: Not even the site's own files without a nonce: what the admin's own pages of some versions
#: of Django don't have, ours must.
NONCES = {
    **STRICT,
    "script-src": [NONCE_SOURCE],
    "style-src": [NONCE_SOURCE],
    "require-trusted-types-for": ["'script'"],
    "trusted-types": ["bgtasks"],
}


def setting(policy):
    """Return the settings that have a policy sent."""
    if django.VERSION >= (6, 0):
        return {"SECURE_CSP": policy}
    return {"CONTENT_SECURITY_POLICY": {"DIRECTIVES": policy}}
