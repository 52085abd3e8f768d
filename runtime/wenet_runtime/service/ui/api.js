// Requests to the server this page came from, with its token if one was given.

const KEY = "wenet-token";

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  drop: () => sessionStorage.removeItem(KEY),
};

/** fetch() of a path of the API; rejects only if the server cannot be reached. */
export function request(path, { headers = {}, wait_ms = 30000, ...more } = {}) {
  const given = token.get();
  const all = given ? { ...headers, Authorization: `Bearer ${given}` } : headers;
  return fetch(path, { ...more, headers: all, cache: "no-store", signal: AbortSignal.timeout(wait_ms) });
}

/** A reply's JSON, or an empty object. */
export async function members(reply) {
  try {
    const found = await reply.json();
    return typeof found === "object" && found !== null ? found : {};
  } catch {
    return {};
  }
}
