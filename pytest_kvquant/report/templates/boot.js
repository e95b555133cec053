"use strict";
/* Unpacks what the page carries packed: the charts' library first, then the page runs. */
const kvUnpack = async (id) => {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
};
kvUnpack("library").then((text) => {
  const library = document.createElement("script");
  library.textContent = text;
  document.head.append(library);
/* BODY */
});
