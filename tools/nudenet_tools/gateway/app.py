"""The gateway's HTTP interface."""

from __future__ import annotations

import contextlib
import ipaddress
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from nudenet_client import Parameters, PictureError
from nudenet_tools.gateway import adapters, intake, openapi
from nudenet_tools.gateway.answers import DetectAnswer, Found, ModerateAnswer, worst
from nudenet_tools.gateway.conversion import JPEG_START, Converters, ConvertersBusy
from nudenet_tools.gateway.detector import Deadline, Servers
from nudenet_tools.gateway.errors import Refused
from nudenet_tools.gateway.keys import KeyFile
from nudenet_tools.gateway.metrics import Metrics
from nudenet_tools.gateway.rates import Rates
from nudenet_tools.gateway.settings import Settings

LOOPBACK_HOSTS = ["127.0.0.1", "localhost", "[::1]"]
MISSKEY_PATH = "/v1/detect-images"
POLICY = r"^[a-z0-9][a-z0-9_-]{0,31}$"
_BEARER = HTTPBearer(auto_error=False, description="Only where the gateway has keys.")


class Timing(BaseModel):
    """What every request may ask for."""

    model_config = ConfigDict(extra="forbid")
    deadline_ms: int | None = Field(None, ge=1, le=600_000, description="at most the gateway's own deadline")


class DetectQuery(Timing):
    """Query parameters of ``/v1/detect``: those of the ensemble."""

    confidence_threshold: float | None = Field(None, ge=0, le=1)
    iou_threshold: float | None = Field(None, ge=0, le=1)
    max_detections: int | None = Field(None, ge=1, le=1000)
    classes: str | None = Field(None, max_length=1000, description="label names, comma-separated")
    policy: str | None = Field(None, pattern=POLICY, description="judge the pictures, too")

    def parameters(self) -> Parameters:
        """As the client takes them."""
        return Parameters(**self.model_dump(exclude={"deadline_ms"}))


class ModerateQuery(Timing):
    """Query parameters of ``/v1/moderate``."""

    policy: str | None = Field(None, pattern=POLICY, description="default: the gateway's")


class Gateway:
    """What all requests share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._keys = KeyFile(settings.keys) if settings.keys else None
        self.metrics = Metrics(self._keys)
        self._rates = Rates(settings.limits.rate, settings.limits.burst)
        self._converters = Converters(settings)
        self._servers: Servers | None = None
        self._in_flight: Counter[str] = Counter()  # by client

    async def open(self) -> None:
        """Connect; inside the event loop that will be used."""
        self._servers = Servers(self.settings.urls, self.settings.deadline)
        await self._servers.open()

    async def close(self) -> None:
        """Close connections and end child processes."""
        await self._converters.close()
        if self._servers is not None:
            await self._servers.close()

    async def is_ready(self) -> bool:
        """Whether a server is."""
        return self._servers is not None and await self._servers.is_ready()

    def admit(self, request: Request) -> None:
        """Check key and rate, and note in the request whose it is.

        Raises:
            Refused: 401 or 429.
        """
        client = self._address(request)
        if self._keys is not None:
            name = self._keys.name(_key(request))
            if name is None:
                raise Refused(401, "unauthorized", "send a known key as Authorization: Bearer KEY")
            client = name
        if wait := self._rates.take(client):
            raise Refused(
                429, "too_many_requests", f"the limit is {self.settings.limits.rate:g} requests a second", wait
            )
        request.state.client = client

    def _address(self, request: Request) -> str:
        """Of the client; X-Forwarded-For is believed as far as it was written by configured proxies."""
        peer = request.client.host if request.client else ""
        # Some proxies add a header of their own to that of the client.
        chain = [*",".join(request.headers.getlist("x-forwarded-for")).split(","), peer]
        for text in reversed(chain):
            try:
                address = ipaddress.ip_address(text.strip())
            except ValueError:
                break
            peer = str(address)
            if not any(address in network for network in self.settings.proxies):
                break
        return peer

    async def look(self, request: Request, parameters: Parameters, deadline_ms: int | None) -> list[Found]:
        """Read the pictures of a request, convert and detect.

        Raises:
            Refused: see there.
        """
        assert self._servers is not None
        with self._at_work(request.state.client):
            wanted = self.settings.deadline if deadline_ms is None else deadline_ms / 1000
            deadline = Deadline(min(self.settings.deadline, wanted))
            sent = await intake.read(request, self.settings.limits, deadline.left)
            frames = [await self._frames(one, deadline) for one in sent]
            files = [file for one in frames if not isinstance(one, str) for file in one]
            self.metrics.frames.inc(len(files))
            answers = iter(await self._servers.detect(files, parameters, deadline) if files else [])
            found = [
                Found(one.name, (), files)
                if isinstance(files, str)
                else Found(one.name, [next(answers) for _ in files])
                for one, files in zip(sent, frames, strict=True)
            ]
        for picture in found:
            self.metrics.pictures.labels(picture.verdict or ("error" if picture.reason else "detected")).inc()
        return found

    @contextlib.contextmanager
    def _at_work(self, client: str) -> Iterator[None]:
        """A place among the requests at work, while the context lasts.

        Raises:
            Refused: 503, all places are taken, or all that one client may hold.
        """
        limits = self.settings.limits
        if (total := self._in_flight.total()) >= limits.in_flight:
            raise Refused(503, "busy", f"{total} requests are at work; try again", 1.0)
        if (own := self._in_flight[client]) >= limits.in_flight_of_client:
            raise Refused(503, "busy", f"{own} of your requests are at work; try again", 1.0)
        self._in_flight[client] += 1
        self.metrics.in_flight.set(total + 1)
        try:
            yield
        finally:
            self._in_flight -= Counter((client,))  # drops who has none left
            self.metrics.in_flight.set(self._in_flight.total())

    async def _frames(self, sent: intake.Sent, deadline: Deadline) -> list[bytes] | str:
        """JPEG files of a picture, or why it is refused."""
        if sent.error:
            return sent.error
        if not sent.data.startswith(JPEG_START):
            self.metrics.converted.inc()
        try:
            return await self._converters.frames(sent.data, deadline.left)
        except PictureError as error:
            return error.reason
        except ConvertersBusy:
            raise Refused(503, "busy", "all converters are at work; try again", 1.0) from None
        except TimeoutError:
            raise Refused(504, "deadline_exceeded", "no answer within the deadline") from None


def create(settings: Settings) -> FastAPI:
    """The application; its `Gateway` is ``app.state.gateway``.

    Raises:
        KeyFileError: the key file is missing or wrong.
    """
    gateway = Gateway(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await gateway.open()
        yield
        await gateway.close()

    app = FastAPI(
        title="NudeNet gateway",
        version="1",
        description="Pictures in, detections and verdicts out. JPEG, PNG, WebP, AVIF and GIF, also animated.",
        lifespan=lifespan,
        docs_url="/docs" if settings.docs else None,
        redoc_url=None,
        openapi_url="/openapi.json" if settings.docs else None,
        redirect_slashes=False,  # behind a proxy that encrypts, it would lead clients to http:// with key and pictures
    )
    app.state.gateway = gateway
    _handle_errors(app)
    app.add_middleware(_Measured, metrics=gateway.metrics)
    if gateway.settings.keys is None:  # another site's name that resolves to this machine must not reach it
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*LOOPBACK_HOSTS, settings.host])

    async def admit(request: Request) -> None:
        gateway.admit(request)

    # The second is for OpenAPI only: it says what `admit` looks at.
    guarded: dict[str, Any] = {"dependencies": [Depends(admit), *([Depends(_BEARER)] if settings.keys else [])]}

    @app.post("/v1/detect", tags=["pictures"], **guarded, **openapi.pictures(DetectAnswer, openapi.DETECT_EXAMPLE))
    async def detect(request: Request, query: Annotated[DetectQuery, Query()]) -> JSONResponse:
        """Detect in one or several pictures. HTTP 422 with the same body if all of them were refused."""
        found = await gateway.look(request, query.parameters(), query.deadline_ms)
        return _pictures(found, judged=query.policy is not None)

    @app.post(
        "/v1/moderate", tags=["pictures"], **guarded, **openapi.pictures(ModerateAnswer, openapi.MODERATE_EXAMPLE)
    )
    async def moderate(request: Request, query: Annotated[ModerateQuery, Query()]) -> JSONResponse:
        """Judge one or several pictures by a policy. A picture that was refused is `error`, never `allow`."""
        parameters = Parameters(policy=query.policy or settings.policy)
        found = await gateway.look(request, parameters, query.deadline_ms)
        return _pictures(found, judged=True, verdict=worst(one.verdict for one in found))

    @app.post("/infer", tags=["adapters"], **guarded, **openapi.adapter(openapi.NUDENET_EXAMPLE))
    async def infer(request: Request, query: Annotated[Timing, Query()]) -> JSONResponse:
        """As NudeNet's own container: multipart file `f1`."""
        return JSONResponse(adapters.nudenet(await gateway.look(request, Parameters(), query.deadline_ms)))

    @app.post(MISSKEY_PATH, tags=["adapters"], **guarded, **openapi.adapter(openapi.MISSKEY_EXAMPLE))
    async def detect_images(request: Request, query: Annotated[Timing, Query()]) -> JSONResponse:
        """As Misskey's sensitive-detector. A picture that was refused fails the request."""
        wanted = Parameters(policy=adapters.MISSKEY_POLICY)
        return JSONResponse(adapters.misskey(await gateway.look(request, wanted, query.deadline_ms)))

    @app.get("/health/live", tags=["health"])
    async def live() -> dict[str, str]:
        """This process answers."""
        return {"status": "live"}

    @app.get("/health/ready", tags=["health"], responses=openapi.UNAVAILABLE)
    async def ready() -> dict[str, str]:
        """A server behind it is ready."""
        if not await gateway.is_ready():
            raise Refused(503, "unavailable", "no server is ready", 1.0)
        return {"status": "ready"}

    return app


def _key(request: Request) -> str:
    """The key that a request came with; empty where there is none, or where two headers leave it open which."""
    bearers, keys = request.headers.getlist("authorization"), request.headers.getlist("x-api-key")
    if len(bearers) > 1 or len(keys) > 1:
        return ""
    scheme, _, key = bearers[0].partition(" ") if bearers else ("", "", "")
    return key.strip() if scheme.lower() == "bearer" else "".join(keys)


def _pictures(found: Sequence[Found], judged: bool, verdict: str = "") -> JSONResponse:
    body: dict[str, Any] = {"verdict": verdict} if verdict else {}
    body["pictures"] = [one.to_dict(judged) for one in found]
    return JSONResponse(body, 422 if all(one.reason for one in found) else 200)


def _handle_errors(app: FastAPI) -> None:
    def answer(request: Request, refused: Refused) -> JSONResponse:
        body = adapters.misskey_error(refused) if request.url.path == MISSKEY_PATH else refused.body()
        return JSONResponse(body, refused.status, refused.headers)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> JSONResponse:
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return answer(request, Refused(400, "invalid_parameter", f"{where}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        response = answer(request, Refused(error.status_code, "http_error", str(error.detail)))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return answer(request, Refused(500, "internal", "the gateway failed on this request"))


class _Measured:
    """ASGI middleware: counts answers and their time, by path."""

    _PATHS = ("/v1/detect", "/v1/moderate", "/infer", MISSKEY_PATH, "/health/live", "/health/ready")

    def __init__(self, app: Any, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._PATHS else "other"
        status, begin = 500, time.perf_counter()

        async def look(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, look)
        finally:
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.seconds.labels(path).observe(time.perf_counter() - begin)
