"""Images of concurrent requests in batches: one queue, and one thread that runs the model."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class _Asked:
    """An image that waits for its answer."""

    image: Any
    key: Hashable
    answer: "asyncio.Future[Any]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Batcher:
    """Collects images for some milliseconds, and has a function answer them together.

    While the model is busy, images gather by themselves. An image waits only if ``coming`` says
    that other requests are on their way, so that a single one is not kept.

    Parameters
    ----------
    function : callable
        Maps the images of a batch that have the same key, and that key, to a sequence of answers.
        It runs in a thread of its own.
    size : int
        Largest number of images in a batch.
    wait : float
        Seconds that an image waits for others.
    coming : callable
        Whether other requests are on their way.
    observed : callable
        Told the number of images of each batch.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Any], Any], Sequence[Any]],
        *,
        size: int,
        wait: float,
        coming: Callable[[], bool],
        observed: Callable[[int], None],
    ) -> None:
        self.function, self.size, self.wait = function, size, wait
        self.coming, self.observed = coming, observed
        self.queue: asyncio.Queue[_Asked] = asyncio.Queue()

    async def ask(self, image: Any, key: Hashable) -> Any:
        """Answer for an image."""
        asked = _Asked(image, key)
        self.queue.put_nowait(asked)
        return await asked.answer

    async def run(self) -> None:
        """Answer until cancelled."""
        with ThreadPoolExecutor(1, thread_name_prefix="diffmic-model") as worker:
            while True:
                groups = defaultdict(list)
                for asked in await self._batch():
                    if not asked.answer.done():  # its request has been given up
                        groups[asked.key].append(asked)
                for key, group in groups.items():
                    await self._answer(worker, key, group)

    async def _batch(self) -> list[_Asked]:
        batch = [await self.queue.get()]
        loop = asyncio.get_running_loop()
        end = loop.time() + self.wait
        while len(batch) < self.size:
            if not self.queue.empty():
                batch.append(self.queue.get_nowait())
            elif self.coming() and loop.time() < end:
                try:
                    async with asyncio.timeout_at(end):
                        batch.append(await self.queue.get())
                except TimeoutError:
                    break
            else:
                break
        return batch

    async def _answer(self, worker: ThreadPoolExecutor, key: Hashable, group: list[_Asked]) -> None:
        loop, images = asyncio.get_running_loop(), [asked.image for asked in group]
        try:
            found = await loop.run_in_executor(worker, self.function, images, key)
        except Exception as reason:
            if len(group) > 1:  # one image is not to spoil the answers of others
                for asked in group:
                    await self._answer(worker, key, [asked])
            elif not group[0].answer.done():
                group[0].answer.set_exception(reason)
            return
        self.observed(len(group))
        for asked, answer in zip(group, found, strict=True):
            if not asked.answer.done():
                asked.answer.set_result(answer)
