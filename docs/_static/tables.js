// Long names in tables may be broken, but only where a reader would break them.
document.addEventListener("DOMContentLoaded", () => {
  for (const name of document.querySelectorAll("td code .pre")) {
    const parts = name.textContent.split(/(?<=[_={,.\/])|(?<=\w-)|(?<=[a-z])(?=[A-Z])/);
    name.replaceChildren(...parts.flatMap((part, at) => (at ? [document.createElement("wbr"), part] : [part])));
  }
});
