// A program as others write them: the web's own fetch, and nothing of capwasm.

/** The answer, or the words of the error that fetch itself gives: a TypeError, as everywhere. */
async function answer(promise) {
  try {
    const response = await promise;
    return [response.status, new Uint8Array(await response.arrayBuffer())];
  } catch (error) {
    throw `${error.name}: ${error.message}`;
  }
}

export const errands = {
  get: (url, headers) => answer(fetch(url, { headers })),
  post: (url, body) => answer(fetch(url, { method: "POST", body })),
  async several(urls) {
    const responses = await Promise.all(urls.map((url) => fetch(url)));
    return Promise.all(responses.map((response) => response.text()));
  },
  /** A body that is made piece by piece while it is sent. */
  stream(url, pieces, size) {
    const body = new ReadableStream({
      pull(controller) {
        if (pieces-- > 0) controller.enqueue(new Uint8Array(size).fill(120));
        else controller.close();
      },
    });
    return answer(fetch(url, { method: "POST", body, duplex: "half" }));
  },
};
