// Shows the API's own document. Where the API asks for a token, log in on the page first: the cookie is sent along.

SwaggerUIBundle({ url: "../openapi.json", dom_id: "#api", deepLinking: true, tryItOutEnabled: true, docExpansion: "list" });
