-- Keys with scopes, limits, allow-lists and rotation.
SELECT 1;
