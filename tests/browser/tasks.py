"""The tasks of a made-up shop, for pages that look like those of a real one."""

import logging

from django_bgtasks import task

logger = logging.getLogger(__name__)


class FeedError(Exception):
    """What a supplier sent can't be read."""


@task(queue_name="emails", max_attempts=5, labels={"team": "sales"})
def send_receipt(order_id, language="en"):
    logger.info("The receipt of order %s is sent.", order_id)
    return {"order": order_id, "language": language}


@task
def resize_picture(picture_id, sizes):
    return [f"pictures/{picture_id}-{size}.jpg" for size in sizes]


@task(max_attempts=2, backoff=0.0, hide_args="api_key", takes_context=True, timeout=600)
def import_feed(context, feed_id, partner, api_key=None):
    logger.info("Fetching feed %s of %s.", feed_id, partner)
    context.progress(0, 100, "Reading rows")
    logger.warning("Row 17 of feed %s has no price.", feed_id)
    return read_feed(feed_id, partner)


def read_feed(feed_id, partner):
    if partner == "initech":
        raise FeedError(f"Feed {feed_id} of {partner}: expected 12 columns, found 11 in row 1042")
    if partner == "globex":
        raise ConnectionError(f"https://feeds.globex.example/{feed_id}: no answer in 20 s")
    return {"rows": 48_300, "orders": 48_117, "bad_rows": 183}


@task(queue_name="reports", priority=-10)
def monthly_report(month):
    if month == "2026-02":
        return {}[month]
    return f"reports/{month}.pdf"


@task(queue_name="default", priority=20)
def charge_card(order_id, cents, token=None):
    if cents > 90_000:
        raise PermissionError(f"Order {order_id}: the bank declined {cents / 100:.2f} EUR")
    return {"order": order_id, "charged": cents}


@task
def sync_stock(shop_id):
    return {"shop": shop_id, "changed": 12}


@task
def send_newsletter(part, parts=None):
    if part == "broken":
        raise UnicodeError("'ascii' codec can't encode character '\\u017c' in position 31")
    return part
