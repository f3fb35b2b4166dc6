"""Waiting for something to change about a job: watches of its Job and pods that come back when they are cut off."""

from __future__ import annotations

import threading
import time

from jobctl.cluster.api import Api
from jobctl.cluster.refusals import GoneError
from jobctl.errors import JobctlError, UnreachableError

WATCHED = ("jobs", "pods")
WATCH_SECONDS = 240  # the API server ends a watch then; the next goes on where it stopped
AGAIN_SECONDS = 1.0  # before a watch that failed is tried again
SETTLE_SECONDS = 0.2  # changes come in bursts: one look for all of them


class Changes:
    """Watches one job in the background from the first wait on."""

    def __init__(self, api: Api, selector: str) -> None:
        self._api, self._selector = api, selector
        self._changed = threading.Event()
        self._error: JobctlError | None = None
        self._threads = [threading.Thread(target=self._watch, args=(plural,), daemon=True) for plural in WATCHED]
        for thread in self._threads:
            thread.start()

    def wait(self, seconds: float) -> None:
        """Return at a change, at the latest after so many seconds. Raises what a watch was refused with."""
        if self._changed.wait(seconds):
            time.sleep(min(SETTLE_SECONDS, seconds))
            self._changed.clear()
        if self._error is not None:
            raise self._error

    def _watch(self, plural: str) -> None:
        version = ""
        while self._error is None:
            try:
                if not version:
                    version = self._api.find_with_version(plural, labelSelector=self._selector)[1]
                    self._changed.set()
                version = self._follow(plural, version)
            except GoneError:
                version = ""  # too long ago: list again
            except UnreachableError:
                time.sleep(AGAIN_SECONDS)
            except JobctlError as error:
                self._error = error
                self._changed.set()

    def _follow(self, plural: str, version: str) -> str:
        """Watch once; the version to go on from, whether it ended or was cut off."""
        query = {"labelSelector": self._selector, "resourceVersion": version, "allowWatchBookmarks": "true"}
        try:
            for event in self._api.watch(plural, WATCH_SECONDS, **query):
                version = str(event["object"]["metadata"]["resourceVersion"])
                if event["type"] != "BOOKMARK":
                    self._changed.set()
        except UnreachableError:
            time.sleep(AGAIN_SECONDS)
        return version
