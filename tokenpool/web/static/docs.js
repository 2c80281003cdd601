// Shows openapi.json; a request tried out from here proves that it comes from this page.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const place = document.getElementById("docs");
  const token = document.querySelector('meta[name="csrf-token"]').content;
  SwaggerUIBundle({
    url: place.dataset.url,
    domNode: place,
    deepLinking: true,
    docExpansion: "list",
    defaultModelsExpandDepth: 0,
    validatorUrl: null,
    requestInterceptor: (request) => {
      if (token && new URL(request.url, location.href).origin === location.origin) {
        request.headers["X-CSRF-Token"] = token;
      }
      return request;
    },
  });
});
