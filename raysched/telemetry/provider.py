"""Tracer providers: the program's own, which gets our spans, and ours, where it has none."""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.util._decorator import _agnosticcontextmanager

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, Tracer
    from opentelemetry.sdk.trace.sampling import Sampler
    from opentelemetry.trace import Span

    Take: TypeAlias = Callable[[ReadableSpan], None]


class LightProvider(trace.TracerProvider):
    """Spans of user code where the program has set no provider.

    The SDK, whose import takes 0.1 s, is loaded when the first span begins.

    Args:
        take: Gets each sampled span when it has ended, in the thread that ends it.
        around: Returns the context for spans of threads that have inherited none, or None.
        sampler: Returns, when the first span begins, what decides about spans without a parent;
            None for all of them. What has a parent is sampled as that is.
    """

    def __init__(
        self,
        take: "Take",
        around: Callable[[], Context | None] = lambda: None,
        sampler: "Callable[[], Sampler | None]" = lambda: None,
    ) -> None:
        self._take = take
        self._sampler = sampler
        self.around = around

    def get_tracer(
        self,
        instrumenting_module_name: str,
        instrumenting_library_version: str | None = None,
        schema_url: str | None = None,
        attributes: Any = None,
    ) -> trace.Tracer:
        """See `opentelemetry.trace.TracerProvider.get_tracer`."""
        scope = instrumenting_module_name, instrumenting_library_version, schema_url, attributes
        return LightTracer(self, scope)

    @cached_property
    def sdk(self) -> Any:
        """The SDK's provider that makes the spans."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

        take = self._take

        class Ended(SpanProcessor):
            def on_end(self, span: "ReadableSpan") -> None:
                if span.context.trace_flags.sampled:
                    take(span)

        provider = TracerProvider(
            sampler=ParentBased(self._sampler() or ALWAYS_ON),
            # Whoever sends the spans knows what they come from.
            resource=Resource({}),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(Ended())
        return provider


class LightTracer(trace.Tracer):
    """Makes spans by the SDK, below the running task run where a thread has no context.

    Args:
        provider: Its provider.
        scope: Arguments of `get_tracer`.
    """

    def __init__(self, provider: LightProvider, scope: tuple[Any, ...]) -> None:
        self._provider = provider
        self._scope = scope

    @cached_property
    def _tracer(self) -> "Tracer":
        tracer: Tracer = self._provider.sdk.get_tracer(*self._scope)
        return tracer

    def start_span(
        self, name: str, context: Context | None = None, *args: Any, **kwargs: Any
    ) -> "Span":
        """See `opentelemetry.trace.Tracer.start_span`."""
        return self._tracer.start_span(name, self._around(context), *args, **kwargs)

    @_agnosticcontextmanager
    def start_as_current_span(
        self, name: str, context: Context | None = None, *args: Any, **kwargs: Any
    ) -> "Iterator[Span]":
        """See `opentelemetry.trace.Tracer.start_as_current_span`."""
        # Asked for when the block begins: the same object may decorate a function.
        around = self._around(context)
        with self._tracer.start_as_current_span(name, around, *args, **kwargs) as span:
            yield span

    def _around(self, context: Context | None) -> Context | None:
        if context is None and not trace.get_current_span().get_span_context().is_valid:
            return self._provider.around()
        return context


def install(provider: LightProvider) -> bool:
    """Let user code use this provider unless there is one; return whether it does.

    One that the program sets later takes its place: `set_tracer_provider`, which works once, is
    not used up.
    """
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return False
    if hasattr(trace, "_TRACER_PROVIDER"):
        trace._TRACER_PROVIDER = provider  # noqa: SLF001 - the reason is above
    else:
        trace.set_tracer_provider(provider)
    return True


class DriverSpans:
    """Spans that user code makes in a driver that has no provider: they go to its telemetry.

    A provider stays for as long as the process, and engines come and go: what ends while there is
    none is nobody's.
    """

    def __init__(self) -> None:
        self._provider = LightProvider(self._put, sampler=lambda: self._sampler)
        self._take: Take | None = None
        self._sampler: Sampler | None = None

    def attach(self, take: "Take", sampler: "Sampler | None") -> None:
        """Give spans to this function from now on.

        Args:
            take: Gets each sampled span when it has ended.
            sampler: Decides about those without a parent, if none has begun before.
        """
        self._take, self._sampler = take, sampler
        install(self._provider)

    def detach(self) -> None:
        """Give them to nobody."""
        self._take = None

    def _put(self, span: "ReadableSpan") -> None:
        take = self._take
        if take is not None:
            take(span)


driver_spans = DriverSpans()
"""Those of this process."""
