"""The routes: who may call them, what they take, what they answer.

`ROUTES` is all there is. A route needs an API key, where keys are configured, unless it says that it is open: denial is
per route and by default, never by a path's prefix.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import msgspec
from msgspec import Struct
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rapidctl import __version__, wire
from rapidctl.wire import Generate
from rapidd import log
from rapidd.http import guard, protocol, render, translate
from rapidd.http.answer import EventStream, Generation, document, error_response
from rapidd.http.bridge import Bridge, Disconnected
from rapidd.http.errors import ApiError
from rapidd.http.keys import Keys
from rapidd.http.metrics import CONTENT_TYPE, Metrics
from rapidd.http.probe import Probe

KEEP_ALIVE_S: Final = 15.0
"""A stream to which nothing comes for one to two times this long gets a comment."""
LARGE_BODY_BYTES: Final = wire.MAX_FRAME_BYTES // 4
"""A body up to this size makes no frame that is too large: a token id of two characters becomes four bytes."""
CLIENT_LEFT: Final = 499
"""Not sent to anybody; how proxies count a client that did not wait."""


class Settings(Struct, frozen=True):
    """What the routes have to know. ``keys`` null: everybody who reaches the server may use it."""

    endpoint: str
    served_model_name: str | None
    keys: Keys | None
    local_only: bool
    max_body_bytes: int
    patience_s: float
    vllm_aliases: bool


class Api:
    """The handlers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.bridge = Bridge(settings.endpoint, settings.patience_s)
        self.probe = Probe(settings.endpoint)
        self.metrics = Metrics(vllm_aliases=settings.vllm_aliases, served_model_name=settings.served_model_name)

    @contextlib.asynccontextmanager
    async def life(self, _app: Starlette) -> AsyncIterator[None]:
        """From the server's start to its end."""
        self.bridge.start()
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            self.bridge.close()
            self.probe.close()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE_S)
            self.bridge.tick()

    # --- generating ------------------------------------------------------------------------------------------

    async def completions(self, request: Request) -> Response:
        """`POST /v1/completions`."""
        data = await guard.read_body(request, self.settings.max_body_bytes)
        body = protocol.decode_completion(data)
        answer = await self._answer(render.COMPLETION, body)
        return await self._generate(request, body, answer, translate.completion(body, answer.id), len(data))

    async def chat_completions(self, request: Request) -> Response:
        """`POST /v1/chat/completions`."""
        data = await guard.read_body(request, self.settings.max_body_bytes)
        body = protocol.decode_chat(data)
        answer = await self._answer(render.CHAT, body)
        return await self._generate(request, body, answer, translate.chat(body, answer.id), len(data))

    async def _answer(self, shape: render.Shape, body: protocol.CompletionBody | protocol.ChatBody) -> render.Answer:
        names = self._names(await self.probe.model(self.bridge.front_boot_id))
        if body.model not in names:
            name = body.model[:200]
            raise ApiError(
                404, "model_not_found", f"the model {name!r} is not served here; served: {names[0]}", param="model"
            )
        return render.Answer(
            shape=shape,
            id=shape.id_prefix + os.urandom(12).hex(),
            model=body.model,
            created=int(time.time()),
            n=body.n or 1,
            names=translate.field_names(body),
        )

    async def _generate(
        self,
        request: Request,
        body: protocol.CompletionBody | protocol.ChatBody,
        answer: render.Answer,
        requests: list[Generate],
        body_bytes: int,
    ) -> Response:
        if body_bytes > LARGE_BODY_BYTES:
            translate.check_size(requests)
        options = body.stream_options
        if body.stream:
            include_usage = bool(options and options.include_usage)
            return EventStream(self.bridge, requests, answer, include_usage, self.metrics.disconnects.inc)
        if options is not None:
            raise ApiError(400, "invalid_request", "stream_options needs stream: true", param="stream_options")
        with Generation(self.bridge, requests, answer, request.state.abort) as generation:
            return await document(generation, answer, request)

    # --- looking ---------------------------------------------------------------------------------------------

    def _names(self, model: wire.ModelInfo) -> list[str]:
        """What the model may be called: the name that was chosen, else its path as configured, or its name."""
        chosen = self.settings.served_model_name
        return [chosen] if chosen else list(dict.fromkeys((model.path, model.name)))

    async def models(self, _request: Request) -> Response:
        """`GET /v1/models`."""
        snapshot = await self.probe.snapshot()
        model = await self.probe.model(snapshot.front_boot_id)
        entry = {
            "id": self._names(model)[0],
            "object": "model",
            "created": int(snapshot.at_unix_s - snapshot.uptime_s),
            "owned_by": "rapid-serve",
            "root": model.path,
            "max_model_len": model.max_model_len,
        }
        return _json({"object": "list", "data": [entry]})

    async def live(self, _request: Request) -> Response:
        """`GET /health/live`: this process works. 503 when only a restart of it helps."""
        return _json({"status": "live"}) if self.bridge.alive else _json({"status": "broken"}, 503)

    async def ready(self, _request: Request) -> Response:
        """`GET /health/ready`, and `/health`: the daemon takes requests."""
        snapshot = await self.probe.snapshot()
        is_ready = snapshot.state == "serving"
        status = {"status": "ready" if is_ready else "not ready", "state": snapshot.state, "detail": snapshot.detail}
        return _json(status, 200 if is_ready else 503)

    async def show_metrics(self, _request: Request) -> Response:
        """`GET /metrics`: also while the daemon is away, as ``rapidd_up 0``."""
        try:
            snapshot = await self.probe.snapshot()
        except ApiError:
            snapshot = None
        response = Response(self.metrics.render(snapshot))
        response.raw_headers.append((b"content-type", CONTENT_TYPE))
        return response

    async def version(self, _request: Request) -> Response:
        """`GET /version`."""
        return _json({"version": __version__})


Handler = Callable[[Api, Request], Awaitable[Response]]


class Spec(Struct, frozen=True):
    """One route. ``is_open``: without a key also where keys are configured."""

    method: str
    path: str
    handler: Handler
    is_open: bool = False


ROUTES: Final = (
    Spec("POST", "/v1/completions", Api.completions),
    Spec("POST", "/v1/chat/completions", Api.chat_completions),
    Spec("GET", "/v1/models", Api.models),
    Spec("GET", "/metrics", Api.show_metrics),
    Spec("GET", "/version", Api.version),
    Spec("GET", "/health", Api.ready, is_open=True),
    Spec("GET", "/health/ready", Api.ready, is_open=True),
    Spec("GET", "/health/live", Api.live, is_open=True),
)


def make_app(settings: Settings) -> ASGIApp:
    """The ASGI application."""
    api = Api(settings)

    async def left(_request: Request, _error: Exception) -> Response:
        api.metrics.disconnects.inc()
        return Response(status_code=CLIENT_LEFT)

    app = Starlette(
        routes=[Route(spec.path, _guarded(api, spec), methods=[spec.method]) for spec in ROUTES],
        exception_handlers={
            ApiError: _refused,
            HTTPException: _not_routed,
            Disconnected: left,
            ClientDisconnect: left,
            Exception: _bug,
        },
        lifespan=api.life,
    )
    app.router.redirect_slashes = False
    return _Counting(app, api.metrics)


def _guarded(api: Api, spec: Spec) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if api.settings.local_only:
            guard.check_host(request)
        if api.settings.keys is not None and not spec.is_open:
            _check_key(request, api.settings.keys)
        return await spec.handler(api, request)

    return endpoint


def _check_key(request: Request, keys: Keys) -> None:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or key.strip() not in keys:
        raise ApiError(401, "invalid_api_key", "a valid API key is needed, as: Authorization: Bearer KEY")


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status_code=status, media_type="application/json")


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refusal = ApiError(405, "method_not_allowed", f"{request.method} is not what this path takes")
    else:
        known = ", ".join(spec.path for spec in ROUTES)
        refusal = ApiError(error.status_code, "not_found", f"there is nothing here; there are: {known}")
    response = error_response(refusal)
    response.headers.update(error.headers or {})
    return response


async def _bug(_request: Request, error: Exception) -> Response:
    return error_response(ApiError(500, "internal_error", f"a bug in the HTTP server: {type(error).__name__}"))


class _Counting:
    """Counts and logs what was answered, by route and status; a path that is none of ours counts as "other"."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._known = {spec.path for spec in ROUTES}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, or the server's life."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, request_id = CLIENT_LEFT, b""

        async def counted(message: Message) -> None:
            nonlocal status, request_id
            if message["type"] == "http.response.start":
                status = message["status"]
                request_id = dict(message["headers"]).get(b"x-request-id", b"")
            await send(message)

        try:
            with self._metrics.in_progress.track_inprogress():
                await self._app(scope, receive, counted)
        finally:
            route = scope["path"] if scope["path"] in self._known else "other"
            method = scope["method"] if scope["method"] in ("GET", "POST") else "other"
            self._metrics.requests.labels(route, method, str(status)).inc()
            if log.debug_is_on():
                log.debug(f"{method} {route} {status}", request_id=request_id.decode() or None)
