"""The shop's site on a port of its own, and what a browser sees of it."""

from contextlib import contextmanager
from importlib import import_module

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.staticfiles.handlers import StaticFilesHandler
from django.test import override_settings
from django.test.testcases import LiveServerThread

from . import policies

#: Runs before any script of a page: what the policy refused is kept.
WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) => window.refused.push(
  `${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber} ` +
  event.sample));
"""
WIDTH, PHONE = 1280, 390
ICON = "/favicon.ico"


@contextmanager
def serving():
    """Serve the site, in a thread, under the strict policy; yield its Site."""
    with override_settings(**under_policies()), listening() as site:
        yield site


def under_policies():
    """Return the settings of a site with policies, in the language that a browser asks for."""
    templates = [dict(engine) for engine in settings.TEMPLATES]
    options = templates[0]["OPTIONS"]
    processors = [*options["context_processors"], policies.CONTEXT_PROCESSOR]
    templates[0]["OPTIONS"] = {**options, "context_processors": processors}
    return {
        "MIDDLEWARE": [
            policies.MIDDLEWARE,
            *settings.MIDDLEWARE,
            "django.middleware.locale.LocaleMiddleware",
        ],
        "TEMPLATES": templates,
        **policies.setting(policies.STRICT),
    }


@contextmanager
def listening():
    """Serve what the settings say, in a thread; yield its Site."""
    with override_settings(ALLOWED_HOSTS=["localhost"]):
        thread = LiveServerThread("localhost", static_handler=StaticFilesHandler)
        thread.daemon = True
        thread.start()
        thread.is_ready.wait()
        if thread.error:
            raise thread.error
        try:
            yield Site(f"http://localhost:{thread.port}")
        finally:
            thread.terminate()


class Site:
    """The address of the site, and who is logged in there."""

    def __init__(self, root):
        self.root = root

    def cookie(self, user):
        """Return the cookie of a session of a user."""
        session = import_module(settings.SESSION_ENGINE).SessionStore()
        session[SESSION_KEY] = str(user.pk)
        session[BACKEND_SESSION_KEY] = settings.AUTHENTICATION_BACKENDS[0]
        session[HASH_SESSION_KEY] = user.get_session_auth_hash()
        session.save()
        name = settings.SESSION_COOKIE_NAME
        return {"name": name, "value": session.session_key, "url": self.root}


class Tab:
    """A page of a browser, and what went wrong in it."""

    def __init__(self, context, site):
        self.site = site
        self.context = context
        context.add_init_script(WATCH)
        self.page = context.new_page()
        self.errors = []
        self.page.on("pageerror", lambda error: self.errors.append(f"script: {error}"))
        self.page.on("console", self._heard)
        self.page.on("response", self._answered)

    def _heard(self, message):
        # A browser asks for an icon whatever the page says.
        if message.type in ("error", "warning") and ICON not in message.location["url"]:
            self.errors.append(f"console: {message.text}")

    def _answered(self, response):
        if response.status >= 400 and ICON not in response.url:
            self.errors.append(f"{response.status} {response.url}")

    def open(self, path):
        self.errors.clear()
        self.page.goto(self.site.root + path)
        return self

    @property
    def refused(self):
        """What the Content-Security-Policy refused of the page that is open."""
        return self.page.evaluate("window.refused")

    def overflow(self):
        """Return by how many pixels the page is wider than the window, and what makes it so."""
        return self.page.evaluate(
            """() => {
              const root = document.documentElement, most = root.clientWidth;
              const wide = root.scrollWidth - most;
              if (wide <= 0) return null;
              const all = [...document.querySelectorAll("body *:not(.bgt-scroll *)")];
              const guilty = all.filter((element) => {
                const box = element.getBoundingClientRect();
                return box.width && (box.right > most + 1 || box.left < -1);
              });
              return [wide, ...guilty.slice(0, 6).map((e) => `${e.tagName}.${e.className}`)];
            }"""
        )
