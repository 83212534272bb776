"""Images of concurrent requests in batches: one queue, and one thread that runs the model."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple


class _Asked(NamedTuple):
    """An image that waits for its answer."""

    image: Any
    key: Hashable
    answer: "asyncio.Future[Any]"


class Batcher:
    """Collects images for some milliseconds, and has a function answer them together.

    While the model is busy, images gather by themselves. An image waits only if ``coming`` says
    that others are on their way, so that a single one is not kept.

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
        Whether other images are on their way.
    """

    def __init__(
        self,
        function: Callable[[Sequence[Any], Any], Sequence[Any]],
        *,
        size: int,
        wait: float,
        coming: Callable[[], bool],
    ) -> None:
        self.function, self.size, self.wait, self.coming = function, size, wait, coming
        self.queue: asyncio.Queue[_Asked] = asyncio.Queue()

    async def ask(self, image: Any, key: Hashable) -> Any:
        """Answer for an image."""
        answer = asyncio.get_running_loop().create_future()
        self.queue.put_nowait(_Asked(image, key, answer))
        return await answer

    async def run(self) -> None:
        """Answer until cancelled."""
        with ThreadPoolExecutor(1, thread_name_prefix="diffmic-model") as worker:
            while True:
                groups = defaultdict(list)
                for asked in await self._batch():
                    if not asked.answer.done():  # its request has been given up
                        groups[asked.key].append(asked)
                for group in groups.values():
                    await self._answer(worker, group)

    async def _batch(self) -> list[_Asked]:
        batch = [await self.queue.get()]
        with contextlib.suppress(TimeoutError):  # a cancelled get() takes nothing
            async with asyncio.timeout(self.wait):
                while len(batch) < self.size and (self.coming() or not self.queue.empty()):
                    batch.append(await self.queue.get())
        return batch

    async def _answer(self, worker: ThreadPoolExecutor, group: list[_Asked]) -> None:
        images = [asked.image for asked in group]
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(worker, self.function, images, group[0].key)
            answers = list(zip(group, found, strict=True))
        except Exception as reason:
            if len(group) > 1:  # one image is not to spoil the answers of others
                for asked in group:
                    await self._answer(worker, [asked])
            elif not group[0].answer.done():
                group[0].answer.set_exception(reason)
            return
        for asked, answer in answers:
            if not asked.answer.done():
                asked.answer.set_result(answer)
