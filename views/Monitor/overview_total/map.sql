SELECT id, state AS key, 1 AS value
FROM documents
WHERE state IN ('todo', 'locked', 'done', 'error')
