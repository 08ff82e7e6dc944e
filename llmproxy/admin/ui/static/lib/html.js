// The view library, put together from the vendored files. Data becomes text or attributes, never markup.

const { htm } = globalThis;

export const { render, Component } = globalThis.preact;
export const { useEffect, useMemo, useRef, useState } = globalThis.preactHooks;

export const html = htm.bind(globalThis.preact.h);
